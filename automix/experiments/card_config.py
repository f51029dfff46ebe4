"""The configuration of `automix card`. Free of torch, so that help texts load quickly."""

from typing import Annotated

from pydantic import StringConstraints, model_validator

from automix.config import Config

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\r\n]+$")]


class CardConfig(Config):
    """Write a model card for the classifier of a replay or the policy of a search."""

    name: Line | None = None
    """Name of the model. Null: that of the folder of the run."""

    license: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")] = "unknown"
    """Identifier of its licence as the Hub lists them, such as mit, apache-2.0 or cc-by-4.0; other
    needs license_name and license_link. It is yours to choose: unknown is a placeholder, and the
    card says so."""

    license_name: Line | None = None
    """Name of a licence that the Hub has no identifier for."""

    license_link: Line | None = None
    """Where that licence is: an address, or LICENSE for a file beside the card."""

    @model_validator(mode="after")
    def _other_licences_are_named(self) -> "CardConfig":
        given = (self.license_name, self.license_link)
        if self.license == "other" and None in given:
            raise ValueError(
                "expected license_name and license_link with the license 'other', got "
                + ("none of both" if given == (None, None) else "one of both")
            )
        if self.license != "other" and given != (None, None):
            raise ValueError(
                "expected no license_name and license_link but with the license 'other', "
                f"got the license {self.license!r}"
            )
        return self
