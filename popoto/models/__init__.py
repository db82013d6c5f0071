"""The documented import paths of models and queries; each module here only hands names on."""
