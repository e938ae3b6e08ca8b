"""Imago's command line: `python run.py --help`."""

from cli import main

if __name__ == "__main__":
    main()
