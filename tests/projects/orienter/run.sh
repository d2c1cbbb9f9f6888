#!/bin/sh
instance=${AI_INSTANCE_ID:-0}
docker compose -f docker/docker-compose.infra.yml -p "orienter-$instance" up -d
