from qsae_core.conformance import parametrize_with_checks

NOT_READ = "graphs are written for other programs; other formats bring weights back"
RULES = {"format-onnx-round-trip": NOT_READ, "format-onnx-writes-again": NOT_READ}
test_conformance = parametrize_with_checks("qsae-format-onnx", RULES)
