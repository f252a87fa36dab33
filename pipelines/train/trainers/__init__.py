"""Where trees are grown: on this machine or on Ray's workers."""
