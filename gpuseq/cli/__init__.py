"""The command `gpuseq` and what it shows. Nothing else imports this folder."""
