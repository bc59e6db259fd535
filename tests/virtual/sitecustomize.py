"""On the path of a Python that VIRTUAL_GPU is set for, it gives it a GPU of that name, whatever it then runs."""

import os

if "VIRTUAL_GPU" in os.environ:
    import gpu

    gpu.install(uuid=os.environ["VIRTUAL_GPU"].format(**os.environ))
