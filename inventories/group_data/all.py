"""Values of every stage; a stage's own file beside this one is stronger. Set these before the first machine."""

# Your app: its name, which its account and its folder in /srv have too, and its git repository. The repository has
# a requirements.lock with hashes; for the role web, gunicorn is in it. What is installed of it: app_ref, which
# each stage has in its own file.
app_name = "shop"
app_repo = "https://git.example.com/shop.git"

# For the role web: gunicorn's module:callable, and the path that answers 200 when the app is well.
app_module = "shop:app"
app_health = "/healthz"

# The account that people log in with, and their SSH keys, as lines of authorized_keys. Without a key nobody can.
deploy_user = "deploy"
deploy_keys: list[str] = []
