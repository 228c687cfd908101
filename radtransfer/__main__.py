"""`python -m radtransfer` is the command `radtransfer`."""

from radtransfer.cli.main import main

if __name__ == "__main__":
    main()
