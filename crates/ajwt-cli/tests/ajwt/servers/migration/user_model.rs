//! A project with a user model of its own, for whose callers the page names the steps that work. It began with Django's
//! model, whose table is left over and has another user of the same id.

use serde_json::Value;

use super::{
    Deployment,
    databases::{with_mysql, with_postgresql, with_sqlite},
    sections,
};
use crate::{
    support::{Folder, project_file},
    walkthrough::{Block, blocks},
};

/// What comes before the tables of callers.
const USER_MODEL: &str = r#"
python manage.py migrate --verbosity 0 auth
python manage.py shell --verbosity 0 <<'END'
from django.contrib.auth.models import User

User.objects.create(username="former")
END
mkdir accounts
touch accounts/__init__.py
cat > accounts/models.py <<'END'
from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    pass
END
cat >> shop/settings.py <<'END'
AUTH_USER_MODEL = "accounts.User"
INSTALLED_APPS += ["accounts"]
END
python manage.py makemigrations --verbosity 0 accounts
"#;

/// What is left over, each after what refers to it.
const FORMER: &str =
    "DROP TABLE auth_user_groups; DROP TABLE auth_user_user_permissions; DROP TABLE auth_user";

/// Commands on Django's tables, each of which would take the callers for the former users.
const REFUSED: [&str; 5] = [
    "ajwt migrate",
    "ajwt user list",
    "ajwt key list former",
    "ajwt nonce init --nonce sql",
    "timeout 60 ajwt gateway --nonce sql",
];

async fn callers_are_refused_and_moved(folder: &Folder, url: &str, settings: &Value) {
    let page = project_file("docs/migrating-from-python.md");
    let (before, [look, _, ask, believe, own_tables, _], _) = sections(&page);
    let mut deployment = Deployment::begin(folder, url, settings, USER_MODEL).await;
    for section in before {
        deployment.follow(&blocks(section)).await;
    }
    deployment.follow(&blocks(look)).await;
    for is_left_over in [true, false] {
        if !is_left_over {
            deployment.follow(&[Block { language: "sql", name: "", text: FORMER }]).await;
        }
        for command in REFUSED {
            let told = deployment.shell.run(&format!("! {command} 2>&1"));
            assert!(told.contains("AUTH_USER_MODEL") && told.lines().count() == 1, "{command}: {told}");
        }
    }
    let forward = |step| blocks(str::split_once(step, "**To go back**").expect("a way back").0);
    let mut own_tables = forward(own_tables);
    own_tables.retain(|block| !block.text.contains("ajwt gateway"));
    deployment.follow(&own_tables).await;
    deployment.shell.run("ajwt nonce init --nonce sql");
    for step in [ask, believe] {
        deployment.follow(&forward(step)).await;
    }
    let token = deployment.token("warehouse", "warehouse.key");
    assert_eq!(deployment.status("/api/hello", &token), "200", "the trusted URL was moved");
    let token = deployment.token("former", "billing.pem");
    assert_eq!(deployment.status("/api/hello", &token), "401", "the key of another");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    with_sqlite(callers_are_refused_and_moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql() {
    with_postgresql(callers_are_refused_and_moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mysql() {
    with_mysql(callers_are_refused_and_moved).await;
}
