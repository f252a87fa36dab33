"""Inspect: what reads and changes nothing.

`status` reports what was decided, `freshness` which source answers and what is pending there,
`history` what a table held at a time, `doctor` what is wrong with an installation, `explain` what
features mean and where a value comes from. `settings_page` is the page of all settings.
"""
