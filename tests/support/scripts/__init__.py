"""Programs that tests run in processes of their own. They import pyinfra where it matters when."""
