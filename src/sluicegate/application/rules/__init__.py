"""The rules in force: replaced, merged, switched, overridden, explained."""
