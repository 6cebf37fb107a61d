"""Language models and embedders; torch starts here."""
