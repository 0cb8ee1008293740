"""The tests of gpuseq: what they share is imported as ``tests.compare``, ``tests.cases`` and so on."""
