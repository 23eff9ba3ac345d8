-- Where the users are the application's.

-- Who changed what: written with each change that is made through KeyAdmin.
CREATE TABLE IF NOT EXISTS ajwt_audit (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor VARCHAR(150) NOT NULL,
    action VARCHAR(50) NOT NULL,
    username VARBINARY(600) NOT NULL,
    detail TEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
