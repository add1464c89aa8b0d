"""From noise to latents: schedules of noise levels, and the samplers that follow them."""
