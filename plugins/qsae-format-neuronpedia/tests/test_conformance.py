from qsae_core.conformance import parametrize_with_checks

test_conformance = parametrize_with_checks("qsae-format-neuronpedia")
