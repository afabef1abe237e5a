"""Tables of what came after the paper: the authors' next network, rivals, switches of followers."""
