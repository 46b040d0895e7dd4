"""protoc out of the grpcio-tools wheel, as `python -m grpc_tools.protoc`: the well-known .proto files come with it."""

import importlib.resources
import sys

from grpc_tools import protoc

if __name__ == "__main__":
    includes = importlib.resources.files("grpc_tools") / "_proto"
    sys.exit(protoc.main(["protoc", *sys.argv[1:], f"-I{includes}"]))
