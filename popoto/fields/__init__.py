"""The documented import paths of the fields; each module here only hands names on."""
