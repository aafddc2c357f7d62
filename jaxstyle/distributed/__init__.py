"""Several devices and several processes.

`sharding` distributes the rows of an image, or the pictures of a batch, over devices. `processes` exchanges values
between the processes of a run and broadcasts decisions of process 0.
"""
