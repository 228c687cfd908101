"""Complete YAML files that a user can run: `radtransfer finetune NAME`."""
