"""The checks that MONAI's model zoo makes before it takes a bundle: passed, or the reason why not.

`python -m benchmarks.zoo [--work DIR]`: offline, on the repository and on what `pixnet export-bundle` writes of the
default network, trained for an epoch on generated slides. After the zoo's `ci/verify_bundle.py`,
`ci/get_bundle_requirements.py`, `ci/unit_tests/` and CONTRIBUTING.md. The checks are functions, which
`tests/test_zoo.py` calls on a tiny model and shows to be able to fail; that is simpler than a table of pytest's
outcomes, where what is not run would have to be a test that tests nothing.
"""
