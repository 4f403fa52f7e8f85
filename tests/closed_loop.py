"""Locust as it comes: users who wait for each answer. What the open loop is compared with."""

from __future__ import annotations

from locust import FastHttpUser, constant_pacing, task


class Caller(FastHttpUser):
    wait_time = constant_pacing(0.05)

    @task
    def classify(self) -> None:
        self.client.post("/classify", data="{}")
