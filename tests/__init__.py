"""The tests, as a package: gmqtt installs a package of this name too, which would hide a folder without this file."""
