"""The AuthZEN working group's Todo scenario, written from its description: a shared list, five people, four roles.

Everybody reads. Editors and admins make todos; editors change and delete their own; admins delete any; evil geniuses change any.
Subjects are opaque names, owners are e-mail addresses: what belongs together is known from the people's own log-ins.
"""

TODO = {
    "release.yaml": """
name: todo
user_attributes: {email: string}
administration:
  operated_by: [hosts]
  decide: [Decider]
  traces: [Auditor]
  audit: [Auditor]
  enforcement_points: {todo-backend: [citadel]}
""",
    "agents.yaml": """
todo-backend:
  test: {issuer: interlock-dev, subject: todo-backend}
  grants:
    - {on: [user.can_read_user, todo.can_read_todos], for: {roles: [viewer, editor, admin, evil_genius], task: todos}}
    - {on: todo.can_create_todo, for: {roles: [editor, admin], task: todos}}
    - {on: todo.can_update_todo, for: {roles: [evil_genius], task: todos}}
    - {on: todo.can_delete_todo, for: {roles: [admin], task: todos}}
    - on: [todo.can_update_todo, todo.can_delete_todo]
      for: {roles: [editor], task: todos, where: {resource.ownerID: {is: user.email}}}
other-backend:
  test: {issuer: interlock-dev, subject: other-backend}
""",
    "tasks.yaml": "todos: {purpose: keep a list, open_to: [viewer, editor, admin, evil_genius], agents: [todo-backend]}\n",
    "tools/user.yaml": """
python: "user:"
operations:
  can_read_user: {effects: [read], input: {}, output: {}, reviewed: {by: us}}
""",
    "tools/todo.yaml": """
python: "todo:"
operations:
  can_read_todos: {effects: [read], input: {}, output: {}, reviewed: {by: us}}
  can_create_todo: {effects: [write], input: {}, output: {}, reviewed: {by: us}}
  can_update_todo:
    effects: [write]
    input: {todo: string}
    output: {}
    resource: {type: Todo, id: todo, read: todo.lookup, attributes: {ownerID: string}}
    reviewed: {by: us}
  can_delete_todo:
    effects: [destructive]
    input: {todo: string}
    output: {}
    resource: {type: Todo, id: todo, read: todo.lookup, attributes: {ownerID: string}}
    reviewed: {by: us}
  lookup: {effects: [read], internal: true, input: {todo: string}, output: {ownerID: string}, reviewed: {by: us}}
""",
}
PEOPLE = {
    "rick": ("pid-of-rick", "rick@the-citadel.com", ("admin", "evil_genius")),
    "morty": ("pid-of-morty", "morty@the-citadel.com", ("editor",)),
    "summer": ("pid-of-summer", "summer@the-smiths.com", ("editor",)),
    "beth": ("pid-of-beth", "beth@the-smiths.com", ("viewer",)),
    "jerry": ("pid-of-jerry", "jerry@the-smiths.com", ("viewer",)),
}
T, F = True, False
# Who: reads beth, reads themselves, reads the list, makes a todo, then changes and deletes: rick's and their own (of Rick: his
# own and morty's).
EXPECTED = {
    "rick": (T, T, T, T, T, T, T, T),
    "morty": (T, T, T, T, F, T, F, T),
    "summer": (T, T, T, T, F, T, F, T),
    "beth": (T, T, T, F, F, F, F, F),
    "jerry": (T, T, T, F, F, F, F, F),
}
MANY = (("rick", ("rick", "jerry"), (T, T)), ("morty", ("rick", "morty"), (F, T)), ("jerry", ("rick", "jerry"), (F, F)))


def subject(who):
    return {"type": "user", "id": PEOPLE[who][0]}


def todo_of(owner):
    return {"type": "todo", "id": "7240d0db-8ff0-41ec-98b2-34a096273b9f", "properties": {"ownerID": PEOPLE[owner][1]}}


def cases():
    """The forty single evaluations: who, action, resource, expected."""
    for who, expected in EXPECTED.items():
        other = "morty" if who == "rick" else "rick"
        owners = (who, other) if who == "rick" else (other, who)
        asked = [
            ("can_read_user", {"type": "user", "id": PEOPLE["beth"][1]}),
            ("can_read_user", {"type": "user", "id": PEOPLE[who][1]}),
            ("can_read_todos", {"type": "todo", "id": "todo-1"}),
            ("can_create_todo", {"type": "todo", "id": "todo-1"}),
            *(("can_update_todo", todo_of(owner)) for owner in owners),
            *(("can_delete_todo", todo_of(owner)) for owner in owners),
        ]
        for (action, resource), decision in zip(asked, expected, strict=True):
            yield who, action, resource, decision
