"""The `cifar` command: `app` lists its commands, `main` runs them."""
