"""The service with few descriptors and these limits of time: DESCRIPTORS [HEADERS_S BODY_PART_S BODY_S]."""

import resource
import sys

from app.__main__ import main
from telemetry import connections

if __name__ == "__main__":
    descriptors = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    if limits := sys.argv[2:]:
        connections.HEADERS_S, connections.BODY_PART_S, connections.BODY_S = map(float, limits)
    sys.argv[1:] = []
    sys.exit(main())
