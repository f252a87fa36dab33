"""Where trees are trained: on this machine, or on Ray's workers."""
