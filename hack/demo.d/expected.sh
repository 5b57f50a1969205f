# shellcheck shell=bash
# What must come of the examples. The figures follow from the data, which
# examples/data-processing/make-orders makes the same every time.

# TASK PHASE ATTEMPTS REASON
expected_tasks() { # GRAPH
	case $1 in
	orders-good) cat <<-END ;;
		fetch-data Succeeded 1 -
		validate Succeeded 1 -
		transform Succeeded 1 -
		quality-check Succeeded 0 -
		store-primary Succeeded 1 -
		store-backup Skipped 0 BranchNotTaken
		notify Succeeded 1 -
		cleanup Succeeded 1 -
	END
	orders-poor) cat <<-END ;;
		fetch-data Succeeded 1 -
		validate Succeeded 1 -
		transform Succeeded 1 -
		quality-check Succeeded 0 -
		store-primary Skipped 0 BranchNotTaken
		store-backup Succeeded 1 -
		notify Succeeded 1 -
		cleanup Succeeded 1 -
	END
	primes) cat <<-END ;;
		cut Succeeded 1 -
		part-1 Succeeded 1 -
		part-2 Succeeded 1 -
		part-3 Succeeded 1 -
		part-4 Succeeded 1 -
		sum Succeeded 1 -
	END
	retries) cat <<-END ;;
		flaky Succeeded 3 -
		count Succeeded 1 -
	END
	primes-small | primes-large) cat <<-END ;;
		count Succeeded 1 -
		say Succeeded 1 -
	END
	shared-files) cat <<-END ;;
		write Succeeded 1 -
		check Succeeded 1 -
		count Succeeded 1 -
	END
	figures) cat <<-END ;;
		count Succeeded 1 -
	END
	figures-again) cat <<-END ;;
		wait Succeeded 1 -
		count Succeeded 0 Cached
		other Succeeded 1 -
		say Succeeded 1 -
	END
	failure) cat <<-END ;;
		unit-test Failed 1 Error
		lint Succeeded 1 -
		benchmark Failed 1 Error
		package Omitted 0 DependencyFailed
		manual Omitted 0 FailurePolicy
		alert Succeeded 1 -
		tidy Succeeded 1 -
	END
	waiting) cat <<-END ;;
		build Succeeded 1 -
		settle Succeeded 1 -
		embargo Succeeded 1 -
		review Succeeded 2 Approved
		publish Succeeded 1 -
	END
	inclusive) cat <<-END ;;
		order Succeeded 1 -
		needs Succeeded 0 -
		pallet Succeeded 1 -
		customs Succeeded 1 -
		wrap Skipped 0 BranchNotTaken
		envelope Skipped 0 BranchNotTaken
		send Succeeded 1 -
	END
	order-failing) cat <<-END ;;
		reserve-inventory Succeeded 1 -
		charge-payment Succeeded 1 -
		ship-order Failed 1 Error
		write-ledger Succeeded 1 -
	END
	order-complete) cat <<-END ;;
		reserve-inventory Succeeded 1 -
		charge-payment Succeeded 1 -
		ship-order Succeeded 1 -
		write-ledger Succeeded 1 -
	END
	esac
}

# TASK PHASE ATTEMPTS MESSAGE
expected_compensations() { # GRAPH
	case $1 in
	order-failing) cat <<-END ;;
		reserve-inventory Succeeded 1 released lamp-2
		charge-payment Succeeded 2 refunded 59.8 of P-A-1047
	END
	esac
}

# TASK {OUTPUTS}
expected_outputs() { # GRAPH
	case $1 in
	orders-good) cat <<-END ;;
		fetch-data {"rows":4000,"sha256":"b69c97c9270f"}
		validate {"rejected":30,"valid":3970}
		transform {"quality":0.9925,"regions":4,"total":2450311.4}
		store-primary {"rows":3970}
		notify {"text":"orders-good: quality 0.9925, stored in primary"}
		cleanup {"removed":4}
	END
	orders-poor) cat <<-END ;;
		fetch-data {"rows":4000,"sha256":"b00fc0069509"}
		validate {"rejected":516,"valid":3484}
		transform {"quality":0.871,"regions":4,"total":2169900.5}
		store-backup {"rows":516}
		notify {"text":"orders-poor: quality 0.871, stored in backup"}
		cleanup {"removed":4}
	END
	primes) cat <<-END ;;
		cut {"width":5000}
		part-1 {"primes":669}
		part-2 {"primes":560}
		part-3 {"primes":525}
		part-4 {"primes":508}
		sum {"primes":2262}
	END
	retries) cat <<-END ;;
		flaky {"line":"free"}
		count {"text":"line free after 3 attempts"}
	END
	primes-small) cat <<-END ;;
		count {"primes":25}
		say {"text":"25 primes below 100"}
	END
	primes-large) cat <<-END ;;
		count {"primes":1033}
		say {"text":"1033 primes from 10000 to 20000"}
	END
	shared-files) cat <<-END ;;
		write {"bytes":1048576,"sha256":"a7a14d0926bd"}
		check {"same":true}
		count {"lines":165668}
	END
	figures) cat <<-END ;;
		count {"primes":669}
	END
	figures-again) cat <<-END ;;
		count {"primes":669}
		other {"primes":783}
		say {"text":"669 primes below 5000, 783 below 6000"}
	END
	failure) cat <<-END ;;
		lint {"warnings":0}
		alert {"text":"unit-test is Failed"}
		tidy {"text":"done, 0 lint warnings"}
	END
	waiting) cat <<-END ;;
		build {"version":"1.4.0"}
		publish {"published":"1.4.0"}
	END
	inclusive) cat <<-END ;;
		order {"country":"NO","gift":false,"items":120}
		pallet {"done":true}
		customs {"done":true}
		send {"done":true}
	END
	order-failing) cat <<-END ;;
		reserve-inventory {"reservation":"lamp-2"}
		charge-payment {"amount":59.8,"payment":"P-A-1047"}
		write-ledger {"entry":"shipping Failed"}
	END
	order-complete) cat <<-END ;;
		reserve-inventory {"reservation":"lamp-2"}
		charge-payment {"amount":59.8,"payment":"P-A-1047"}
		ship-order {"shipment":"S-1"}
		write-ledger {"entry":"shipping Succeeded"}
	END
	esac
}

# LINES FILE of each file, then the sums: REGION,ORDERS,SUM.
expected_volume() {
	cat <<-END
		4 ./orders-good/primary/regions.csv
		3970 ./orders-good/primary/valid.csv
		4001 ./orders-poor/backup/orders.csv
		516 ./orders-poor/backup/rejected.csv
		east,983,630292.50
		north,984,608143.40
		south,1003,615636.40
		west,1000,596239.10
	END
}
