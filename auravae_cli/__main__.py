"""`python -m auravae_cli`"""

from auravae_cli.cli.app import main

if __name__ == "__main__":
    main()
