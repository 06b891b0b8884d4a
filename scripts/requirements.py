"""Print the requirements in setup.cfg and those of the extras that are given: cuda120 s3."""

import configparser
import sys


def main(extras: list[str]) -> int:
    settings = configparser.ConfigParser()
    settings.read("setup.cfg")
    lists = [settings["options"]["install_requires"]]
    lists += [settings["options.extras_require"][extra] for extra in extras]
    print("\n".join(lists))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
