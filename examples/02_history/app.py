"""Who changed what, when and why: the history of one record, and ways back in it."""

from __future__ import annotations

from eventic_core import Eventic, Record, RecordDeleted


class Order(Record, class_type="ExampleOrder"):
    customer: str
    lines: list[str]
    state: str = "open"

    def ship(self) -> None:
        self.state = "shipped"
        self.properties.add(carrier="post")


def change() -> Order:
    """Make four versions: a call of the class, an assignment, an edit block and a method."""
    with Eventic.acting(actor="ada", correlation_id="case-7"):
        order = Order(customer="Acme", lines=["bolt"])
        order.customer = "Acme Ltd"
    with Eventic.acting(actor="bob"):
        with order.edit(reason="customer called"):  # one version for all of it
            order.lines.append("nut")
            order.properties.add(urgent=True)
        order.ship()  # so is a public method; its name is the reason
    return order


def look(order: Order) -> None:
    print("history")
    for past in order.history():
        print(f"  {past.version}  {past.stamp.actor}  {past.stamp.reason}  {past.state}  {past.lines}")

    print("diff of 0 and 2")
    for found in order.diff(0, 2).changes:
        print(f"  {found.field}: {found.before} -> {found.after}")

    print("blame")
    for name, blame in sorted(order.blame().items()):
        print(f"  {name}: {blame.value} since version {blame.version} by {blame.actor}")

    moment = order.history()[2].stamp.recorded_at  # when version 1 became current
    then = Order.as_of(moment).hydrate(order.id)
    print(f"as of then: version {then.version}, {then.customer}, {then.lines}")


def go_back(order: Order) -> None:
    order.revert(1)  # its values, as a new version
    print(f"reverted: version {order.version}, {order.state}, {order.lines}")

    order.delete(reason="placed twice")
    try:
        Order.hydrate(order.id)
    except RecordDeleted:
        print(f"deleted: version {order.version} says so, the history stays")

    order = Order.restore(order.id)
    print(f"restored: version {order.version}, {order.customer}, {order.lines}")


def main() -> None:
    Eventic.init(name="history")
    order = change()
    look(order)
    go_back(order)
    Eventic.shutdown()


if __name__ == "__main__":
    main()
