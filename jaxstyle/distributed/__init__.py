"""Several devices and several processes.

`sharding` distributes the rows of an image, or the pictures of a batch, over devices. `processes` lets the processes of
a run exchange values and agree on decisions of process 0.
"""
