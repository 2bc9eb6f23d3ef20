"""`python -m redis_core` is `raptorflow`."""

from redis_core.cli import main

if __name__ == "__main__":
    main()
