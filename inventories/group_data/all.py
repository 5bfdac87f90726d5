"""Values of every stage; a stage's own file beside this one is stronger."""

app_name = "shop"
app_repo = "https://git.example.com/shop.git"
app_module = "shop:app"
app_health = "/healthz"
deploy_user = "deploy"
