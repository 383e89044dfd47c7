"""Imputers behind one interface: CSAI and its controls, plain rules, PyPOTS's networks."""
