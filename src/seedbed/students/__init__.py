"""Students: small models trained with and without synthetic rows, to see whether those rows helped."""
