"""The gRPC form of the Open Inference Protocol, without gRPC's libraries.

The gateway ends HTTP/2 and gRPC's framing; what reaches a replica is a plain `POST /inference.GRPCInferenceService/RPC`
with one protobuf message as its body. `skin` answers it from the core, `requests` and `contents` translate, `wire`
reads and writes protobuf by the tables in `schema`. Nothing of grpcio or protobuf is needed, so that no pin of theirs
can fight the model's.
"""

SERVICE = "inference.GRPCInferenceService"
PREFIX = f"/{SERVICE}/"
"""What the paths of calls begin with; the RPC's name follows."""
