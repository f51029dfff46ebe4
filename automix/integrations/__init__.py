"""Schedules in other people's training loops: adapters only, no policy logic."""

from automix.integrations.scheduled_mix import ScheduledMix

__all__ = ["ScheduledMix"]
