"""Every feature once: its meaning, unit, kind, and the words that a seller reads.

Standard library only: the server reads this file, and must stay light.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["number", "boolean", "category"]
Unit = Literal["", "days", "currency", "people", "share", "count", "ratio"]


@dataclass(frozen=True)
class Feature:
    """One column of the model, in words.

    Attributes
    ----------
    name : the column
    group : whose trait it is: deal, partner, customer, pair (partner and customer), vendor, or other
    kind : number, boolean or category; any of them may be missing
    unit : of a number; empty for the other kinds
    meaning : one sentence for people who build models
    label : a few words for a seller, to stand before a value
    phrases : for a boolean ``"true"`` and ``"false"``, for a category its levels: a seller's words
    missing_phrase : a seller's words where the value is not on record
    """

    name: str
    group: str
    kind: Kind
    unit: Unit
    meaning: str
    label: str
    phrases: Mapping[str, str] = field(default_factory=dict)
    missing_phrase: str = ""


def _number(name: str, group: str, unit: Unit, meaning: str, label: str, missing_phrase: str = "") -> Feature:
    return Feature(
        name, group, "number", unit, meaning, label, {}, missing_phrase or f"{label}: not on record"
    )


def _category(
    name: str, group: str, meaning: str, label: str, phrases: Mapping[str, str] | None = None
) -> Feature:
    return Feature(name, group, "category", "", meaning, label, phrases or {}, f"{label}: not on record")


def _boolean(
    name: str, group: str, meaning: str, label: str, true: str, false: str, missing_phrase: str = ""
) -> Feature:
    phrases = {"true": true, "false": false}
    return Feature(name, group, "boolean", "", meaning, label, phrases, missing_phrase)


_DEAL_TYPES = {
    "new_business": "New business",
    "expansion": "Expansion of what the customer already has",
    "renewal": "Renewal",
}
_PARTNER_TYPES = {
    "si": "The partner is a systems integrator",
    "alliance": "The partner is an alliance",
    "var": "The partner is a value-added reseller",
    "distributor": "The partner is a distributor",
    "msp": "The partner is a managed service provider",
}

_DEAL = (
    _number("amount", "deal", "currency", "What the deal is worth, in the export's currency.", "Deal amount"),
    _number(
        "amount_to_customer_revenue",
        "deal",
        "ratio",
        "The amount over the customer's yearly revenue.",
        "Deal amount against the customer's yearly revenue",
        "Deal amount against the customer's yearly revenue: one of the two is not on record",
    ),
    _number(
        "amount_to_partner_usual",
        "deal",
        "ratio",
        "The amount over the mean amount of the partner's other deals created before the moment.",
        "Deal amount against this partner's usual deal",
        "No earlier deal of this partner to compare the amount with",
    ),
    _category("stage", "deal", "The stage that the deal is in.", "Stage"),
    _number(
        "days_open",
        "deal",
        "days",
        "From the deal's creation to its entry into this stage; time within the stage does not count.",
        "Days from creation to this stage",
    ),
    _number(
        "days_in_stage",
        "deal",
        "days",
        "From the entry into the stage to the moment; 0 where it is decided at stage entries.",
        "Days in this stage",
    ),
    _number(
        "days_in_previous_stage",
        "deal",
        "days",
        "From the last recorded earlier stage entry to the entry into this stage.",
        "Days in the stage before",
        "No earlier stage on record",
    ),
    _number(
        "stage_moves",
        "deal",
        "count",
        "Recorded stage entries of the deal before this one.",
        "Stages passed before this one",
    ),
    _category("product_line", "deal", "The product line of the deal.", "Product line"),
    _category("deal_type", "deal", "New business, expansion or renewal.", "Type of deal", _DEAL_TYPES),
    _category("lead_source", "deal", "Where the lead came from.", "Lead source"),
    _category("competitor", "deal", "The competitor named on the deal.", "Competitor"),
    _number(
        "days_to_quarter_end",
        "deal",
        "days",
        "From the moment to the end of the calendar quarter (UTC).",
        "Days to the end of the quarter",
    ),
)
_PARTNER = (
    _category("partner_id", "partner", "The partner itself: each has an effect of its own.", "Partner"),
    _category(
        "partner_type", "partner", "What kind of company the partner is.", "Type of partner", _PARTNER_TYPES
    ),
    _category("partner_tier", "partner", "The partner's tier in the vendor's programme.", "Partner tier"),
    _category("partner_region", "partner", "The partner's region.", "Partner region"),
    _number(
        "partner_employees", "partner", "people", "Employees of the partner.", "Employees of the partner"
    ),
    _number(
        "partner_certifications",
        "partner",
        "count",
        "Certifications that the partner holds.",
        "Certifications of the partner",
    ),
    _number(
        "partner_tenure_days",
        "partner",
        "days",
        "From the partner's joining to the moment.",
        "Days since the partner joined",
    ),
    _number(
        "partner_deals_before",
        "partner",
        "count",
        "Other deals of the partner created before the moment.",
        "Earlier deals of this partner",
    ),
    _number(
        "partner_win_rate",
        "partner",
        "share",
        "Share won of the partner's deals closed before the moment, smoothed by ten deals won at the rate "
        "of everybody's.",
        "Share of earlier deals that this partner won",
    ),
    _number(
        "partner_wins_with_product",
        "partner",
        "count",
        "Deals with this product line that the partner had won before the moment.",
        "Earlier wins of this partner with this product",
        "Earlier wins of this partner with this product: the product is not on record",
    ),
)
_CUSTOMER = (
    _category("customer_industry", "customer", "The customer's industry.", "Customer's industry"),
    _category("customer_region", "customer", "The customer's region.", "Customer's region"),
    _number(
        "customer_employees", "customer", "people", "Employees of the customer.", "Employees of the customer"
    ),
    _number(
        "customer_annual_revenue",
        "customer",
        "currency",
        "The customer's yearly revenue.",
        "Customer's yearly revenue",
    ),
    _number(
        "customer_deals_before",
        "customer",
        "count",
        "Other deals with the customer, through any partner, created before the moment.",
        "Earlier deals with this customer, through anyone",
    ),
    _number(
        "customer_wins_before",
        "customer",
        "count",
        "Other deals with the customer, through any partner, won before the moment.",
        "Earlier wins at this customer, through anyone",
    ),
)
_PAIR = (
    _boolean(
        "pair_first_sale",
        "pair",
        "The partner had won nothing at this customer before the moment.",
        "First sale of this partner to this customer",
        "First sale of this partner to this customer",
        "This partner has sold to this customer before",
    ),
    _number(
        "pair_deals_before",
        "pair",
        "count",
        "Other deals of this partner with this customer created before the moment.",
        "Earlier deals of this partner with this customer",
    ),
    _number(
        "pair_wins_before",
        "pair",
        "count",
        "Other deals of this partner with this customer won before the moment.",
        "Earlier wins of this partner at this customer",
    ),
    _number(
        "pair_days_since_last_deal",
        "pair",
        "days",
        "From the creation of the pair's last other deal before the moment to the moment.",
        "Days since the last deal of this partner with this customer",
        "No earlier deal of this partner with this customer",
    ),
    _number(
        "pair_tenure_days",
        "pair",
        "days",
        "From the start of the relationship, as recorded before the moment, to the moment.",
        "Days that this partner and this customer have known each other",
    ),
    _boolean(
        "pair_executive_contact",
        "pair",
        "The partner talks to the customer's executives, as recorded before the moment.",
        "Executive contact of the partner at the customer",
        "The partner has executive contact at the customer",
        "The partner has no executive contact at the customer",
        "Whether the partner has executive contact at the customer is not on record",
    ),
)
_VENDOR = (
    _boolean(
        "already_involved",
        "vendor",
        "Vendor people had been on this deal before the moment, and it was recorded.",
        "Vendor people have been on this deal",
        "Vendor people have already been on this deal",
        "No vendor people on this deal so far",
    ),
    _boolean(
        "vendor_active_now",
        "vendor",
        "A recorded involvement of vendor people on this deal is running at the moment.",
        "Vendor people are on this deal now",
        "Vendor people are on this deal now",
        "No vendor people are on this deal now",
    ),
    _number(
        "vendor_involvements_before",
        "vendor",
        "count",
        "Involvements of vendor people on this deal started and recorded before the moment.",
        "Times that vendor people joined this deal",
    ),
    _number(
        "pair_vendor_involved_before",
        "vendor",
        "count",
        "Other deals of the pair created before the moment with an involvement recorded by then.",
        "Earlier deals of this partner with this customer that vendor people joined",
    ),
    _number(
        "uncoordinated_days",
        "vendor",
        "count",
        "Days of the 30 before the moment on which vendor and partner both touched the customer, the same "
        "day or a day apart, without a hand-over in these days.",
        "Days of the last 30 on which vendor and partner both contacted the customer without a hand-over",
        "Who contacted the customer: not on record",
    ),
    _boolean(
        "uncoordinated",
        "vendor",
        "Vendor and partner both touched the customer in the same days without a hand-over.",
        "Vendor and partner on the customer at once, without a hand-over",
        "Vendor and partner contacted the customer in the same days without a hand-over",
        "Vendor and partner have not both contacted the customer in the same days without a hand-over",
        "Who contacted the customer is not on record",
    ),
)

CATALOG: tuple[Feature, ...] = _DEAL + _PARTNER + _CUSTOMER + _PAIR + _VENDOR
_BY_NAME = {feature.name: feature for feature in CATALOG}
_GROUPS = ("deal", "partner", "customer")


def names() -> list[str]:
    """Return the names of all features, in the order of the columns."""
    return list(_BY_NAME)


def feature(name: str) -> Feature:
    """Return the feature of that name, or a plain one made from the name where it is a user's own column.

    A user's own column is taken for a number: its kind is known only to the model that saw it.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    group = name.split("_", 1)[0]
    words = name.replace("_", " ").strip() or name
    label = words[:1].upper() + words[1:]
    missing_phrase = f"{label}: not on record"
    known_group = group if group in _GROUPS and "_" in name else "other"
    return Feature(
        name, known_group, "number", "", f"Column '{name}' of the source.", label, {}, missing_phrase
    )
