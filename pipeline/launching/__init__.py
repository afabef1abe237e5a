"""Many runs, each started once: on this machine or on a cluster."""
