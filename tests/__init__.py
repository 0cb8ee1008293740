"""The tests of gpuseq: the helpers here are imported as ``tests.compare``, ``tests.cases`` and so on."""
