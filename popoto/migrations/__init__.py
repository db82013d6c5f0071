"""Migrations: bring stored records to a model's new definition: rename, add, drop and retype fields, change keys."""

from popoto.migrations.migration import Migration
from popoto.migrations.report import Example, Problem, Report
from popoto.migrations.steps import AddField, Draft, DropField, RenameField, RenameModel, RetypeField, Step

__all__ = [
    "AddField",
    "Draft",
    "DropField",
    "Example",
    "Migration",
    "Problem",
    "RenameField",
    "RenameModel",
    "Report",
    "RetypeField",
    "Step",
]
