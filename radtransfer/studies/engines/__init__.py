"""Where the runs of a study are computed: here, in processes of this machine, or on a Ray cluster."""
