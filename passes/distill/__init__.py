"""Training towards the original, on unlabelled inputs."""
