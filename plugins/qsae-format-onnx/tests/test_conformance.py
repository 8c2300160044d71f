from qsae_core.conformance import parametrize_with_checks

NOT_READ = "graphs are written for other programs; other formats bring weights back"
EXPECTED = {f"format-onnx-{rule}": NOT_READ for rule in ("round-trip", "writes-again")}
test_conformance = parametrize_with_checks("qsae-format-onnx", EXPECTED)
