"""Slurm: its commands, the resources of a job, submission, and what runs inside a job."""
