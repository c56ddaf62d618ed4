SELECT id, state, digest FROM jobs WHERE namespace = :namespace AND client_key = :client_key
