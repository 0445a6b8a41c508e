"""What programs written for Ray find under `ray.util`."""
